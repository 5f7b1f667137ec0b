"""What libtpu, the TPU's compiler, is told through its environment."""

ARGUMENTS = "LIBTPU_INIT_ARGS"  # the variable; libtpu reads it when the first TPU is looked for

# Threads in which libtpu 0.0.42 compiles have stacks of 64 KiB, and one of its passes recurses over
# the instructions of a fused operation: those of the student's patch embedding, compiled for v6e,
# overflow them, which is a segmentation fault. A release that compiles the program of
# tests/runtime/test_libtpu.py without this flag needs it no more. Releases that do not know it
# would refuse to start, but for `undefok`.
_FLAG = "fibers_default_thread_stack_size"
_BYTES = 8 * 2**20  # as threads of Linux have


def arguments(given: str = "") -> str:
    """Deep stacks, and the arguments `given`, which have the last word."""
    if _FLAG in given:
        return given
    return f"--undefok={_FLAG} --{_FLAG}={_BYTES} {given}".strip()
