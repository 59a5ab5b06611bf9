"""How many threads torch uses on a CPU."""


def set_threads(count: int) -> None:
    """Limit this process's arithmetic on a CPU, torch's and NumPy's, to `count` threads."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(count)
    threadpool_limits(count, user_api="blas")
