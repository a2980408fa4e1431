"""The frame that a study stands on: a paper's mechanism as a plug-in.

A study is a class derived from `base.Study`, in a package of its own:

- Its parameters are a frozen dataclass of `knobs.knob`s. Page, command line and notebook make
  their controls from them.
- `fit(params, context)` does the slow part: seeded by `context.generator(purpose)`, reporting
  through `context.track(items, note)`, which also stops it when it is cancelled. What it returns
  (tensors, arrays, numbers, texts, in dataclasses, lists, tuples and dicts) is kept on disk.
- `measure(fitted, params)` is pure and fast: `result.StudyResult` of tables and `result.Claim`s.
- `figures(result)` draws the tables with `plot`, the paper's main figure first.
- `controls` are sabotaged variants, each of which must fail a claim.

The catalogue (`catalogue.BUILT_IN`, or an entry point of the group `workbench.studies`) makes it
appear; `runner.run` runs it, `output.write_report` writes it. `tests/study/example_study.py` is a
whole study.
"""
