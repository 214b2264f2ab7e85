"""A tensor whose length is off by one, in every place: native code and the reference refuse or take it alike."""

import random

from contract import every_stem
from native_fuzz.operators import MAKERS, Numbers, agree, spoilt


@every_stem
def test_wrong_lengths(stem: str) -> None:
    rng = random.Random(stem)
    spoilt_calls = (spoilt(MAKERS[stem](Numbers(rng)), rng) for _ in range(60))
    problems = [problem for args in spoilt_calls if args is not None and (problem := agree(stem, args))]
    assert not problems, problems[:3]
