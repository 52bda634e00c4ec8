"""Runs over many machines: where files are, how work is cut, what workers do, and what came of it. Only `pool` and
`fleet` know Ray, everything else runs in one process; the package must not know the command line.
"""
