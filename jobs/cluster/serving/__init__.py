"""Model servers that a run starts for itself, on GPUs of their own, in environments of their own.

`guard` takes a server's processes along when whoever wanted it is gone; `process` starts one
behind it; `keeper` has it answer, again after a death; `actor` does that on a node of a Ray;
`fleet` is the driver's end of all of them.
"""
