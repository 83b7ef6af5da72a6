"""Benchmarks: the same requests to several backends in turn, each in a process of its own, and a report.

`runner` measures a plan: `contenders` know how each target is loaded, `workloads` what is asked, `schedule`
in which order; `engine` and `http_engine` answer, in a `process`. `metrics` are functions of what was timed,
`rates` and `roofline` say what the machine could do at best, and `idle` whether it was ours alone. A `report`
is shown by `tables`, `comparison` and `plot`.
"""
