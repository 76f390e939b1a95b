"""Every n-th slice (fixed interval; "Keep_n" in Z25 §2.1)."""


def fixed_interval_slices(num_slices: int, *, count: int) -> tuple[int, ...]:
    """Choose `count` slices at equal intervals, half an interval from both ends.

    Slice i is floor((i + 1/2) · num_slices / count), so the choice depends on nothing but the two
    numbers. Sorted, without repetition; empty when `count` is 0.

    Raises:
        ValueError: `count` is negative or larger than `num_slices`.
    """
    if not 0 <= count <= num_slices:
        raise ValueError(f"Cannot choose {count} of {num_slices} slices.")
    return tuple((2 * i + 1) * num_slices // (2 * count) for i in range(count))
