"""What each primitive means, in plain torch: forward, explicit backward, and how to make inputs for tests."""

import torch

# Products are defined in half precision too: autocast lowers their operands.
PRODUCT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
