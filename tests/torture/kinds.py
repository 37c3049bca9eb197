"""A small sample that leaves out no kind of point."""

import rig


def first(fault, points, kind):
    """`points`, which are in random order, with one of each kind in front; `kind` names that
    of a point. A sample too small for that says what it left out."""
    seen, front, behind = set(), [], []
    for point in points:
        (behind if kind(point) in seen else front).append(point)
        seen.add(kind(point))
    left_out = [str(kind(point)) for point in front[rig.options.points or len(front):]]
    if left_out:
        fault.notes.append(f"not in a sample of {rig.options.points}: {', '.join(left_out)}")
    return front + behind
