"""Largest numbers that options take, so that no later computation overflows: what they exceed is refused before anything is loaded."""

#: Largest count: of evaluations, examples, epochs or tokens.
MOST_COUNT = 2**31 - 1
#: Largest seed of a run, which is stored as a signed number of 64 bits.
MOST_RUN_SEED = 2**63 - 1
#: Largest training seed: what every generator accepts, with room for the seeds that follow it.
MOST_SEED = 2**31 - 1
#: Most actors of a run, and most threads or GPUs of one of them.
MOST_EVALUATORS, MOST_THREADS, MOST_GPUS = 10_000, 1024, 1024
#: Largest finite float32.
MOST_FLOAT = 3.4028234663852886e38
