"""Studies: named sweeps that come with the program, each with a report of its own.

`mlenergy study list`, `mlenergy study run NAME [OPTIONS]`, `mlenergy study report NAME [DIR]`. A study is one
file of this folder and a line in `registry.STUDIES`. It has three parts:

    @option_group("study")
    @dataclass(frozen=True, kw_only=True)
    class StepsOptions(StudyOptions):          # its options, beside those that all studies have
        '''Seconds and joules over the number of steps.'''

        model: str = "black-forest-labs/FLUX.1-dev"
        '''Model to measure.'''

    def sweeps(options: StepsOptions) -> Sweeps:                    # options -> what runs
        grid = {"inference_steps": [4, 8] if options.quick else [4, 8, 16]}
        yield Sweep("steps", {"common": {"model_id": options.model}, "grid": grid, "repeats": 2})

    def report(options: StepsOptions, outcome: Outcome) -> Report:  # results -> tables, charts, sentences
        rows = [{"steps": cell.option("inference_steps"), **figures_of(cell)} for cell in outcome.cells()]
        columns = (Column("steps", "steps"), *FIGURE_COLUMNS)
        return Report("Steps", parts=[Table("steps", "Steps", columns, rows)])

    STEPS = Study("steps", StepsOptions, sweeps, report)            # the line of the table names this

- `Sweep(name, content)`: `content` has the keys of a sweep file (docs/sweeps.md): common, grid, list, filter,
  repeats, order. The runner adds the folder, the bundled prompts unless a dataset is named, --weights and
  --set, the Slurm settings and the number of retries.
- `sweeps` is a generator. Each `yield` returns the cells of that sweep once it has run, so that later sweeps
  may depend on them: `cells = yield Sweep(...)`. A study whose later sweeps do sets `Study.adaptive`; under
  --print, and while Slurm still runs the first sweep, it ends early by itself where a cell is not complete.
- A `Cell` is one configuration with all of its repeats: `cell.option(NAME)`, `cell.set_up` (the starts
  pooled: `.seconds`, `.joules`, `.peak_memory_gb`; None where nothing is complete), `cell.gap` (why not),
  `cell.runs[0].content` (results.json), `cell.runs[0].folder`.
- `outcome.cells(SWEEP)`, `outcome.cell(SWEEP, NAME=VALUE, ...)`, `outcome.folder`.
- `Study.before(options, folder)` writes files that the runs read, such as their prompts. `run` alone calls
  it, each time. A file that the options decide on has to be named by its content: equal command lines are
  one run.
- `Study.after(options, outcome)` works on the results before the report is written, such as measuring the
  quality of the images. It is called by `run` alone, not after an interrupt, on every call, so that it has to
  skip what it has done.
- `Study.is_expected(run)` is true for a failed run that is a result of the study, such as one that was to
  find out where the memory ends: it is not repeated, and does not make the exit code 1.
- A report's values are texts, numbers, `Measured` (a number with its interval) and `Gap` (unknown, with the
  reason): a null with a reason in report.json, an empty field in the CSV, a dash on page and terminal.
  Runs that are not complete are listed by the framework, with their reasons.
- `Report.files` are files to copy beside the report, `Report.texts` files to write there, by their names.

Everything else is the launcher's own: runs are planned, started, resumed and printed by `sweep/`, and read by
`results/`. A study's folder holds study.json (its command), sweeps/NAME/ (state and logs), results/, and
report.json, report.html, report.txt and one CSV a table.
"""
