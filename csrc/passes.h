// All passes: the one list that a new one joins.
#pragma once

#include "crown_concretize.h"
#include "crown_relu.h"
#include "crown_windows.h"
#include "interval_margin.h"
#include "interval_norm_relu.h"
#include "interval_norm_relu_moments.h"
#include "signed_weight_grad.h"
#include "singleprop_norm_relu.h"
#include "swap_axes.h"

#define FASTBOUND_FOR_EACH_PASS(visit)                                                                                 \
  visit(CrownConcretizeFwd) visit(CrownConcretizeBwd) visit(CrownReluFwd) visit(CrownReluBwd) visit(CrownWindowsLines) \
      visit(CrownWindowsConcretize) visit(CrownWindowsFold) visit(IntervalMarginFwd) visit(IntervalMarginBwd)          \
          visit(NormStatistics) visit(IntervalNormReluFwd) visit(IntervalNormReluBwdSums) visit(IntervalNormReluBwd)   \
              visit(IntervalNormReluMomentsFwd) visit(IntervalNormReluMomentsBwdSums)                                  \
                  visit(IntervalNormReluMomentsBwd) visit(SignedWeightGrad) visit(SinglePropNormReluFwd)               \
                      visit(SinglePropNormReluBwdSums) visit(SinglePropNormReluBwd) visit(SwapAxes)
