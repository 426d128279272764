"""Mutation: one line of the product is changed, and the area's tests must notice.

    python -m tools.mutation record [--minutes 20]     which test runs which lines of the judged rooms (resumable)
    python -m tools.mutation judge [--minutes 20]      400 mutants drawn with seed 1, each with the tests of its lines
    python -m tools.mutation report                    docs/results/mutation.json and the survivors

`sites` lists every change that can be made, `record` notes what each test runs, `judge` runs the tests of a mutant in
a process of its own, in which the changed module is compiled from its changed tree: no file is written to.
"""
