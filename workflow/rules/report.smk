# The claims' verdicts, what was run, and the comparison with the reference results.


rule judge:
    input:
        tables=[f"{TABLES}/{name}.csv" for name in [*EXPERIMENTS.experiments, THEORY]],
        experiments=str(EXPERIMENTS_FILE),
        code=CODE,
    output:
        csv=f"{RESULTS}/claims.csv",
        page=report(
            f"{RESULTS}/claims.html",
            caption="../report/claims.rst",
            category="Claims",
            labels={"table": "verdicts"},
        ),
    log:
        f"{RESULTS}/logs/claims.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python -m workflow.analysis claims --experiments {input.experiments:q}"
        " --tables {input.tables:q} --out {output.csv:q} > {log:q} 2>&1 || say_why {log:q}"


rule claims:
    input:
        rules.judge.output,
        metrics_for(FIGURE_RUNS),
    localrule: True


rule list_runs:
    # Settings, provenance and times. Reads what lies beside the metrics that it depends on.
    input:
        experiments=str(EXPERIMENTS_FILE),
        metrics=metrics_files(list(RUNS.values())),
        code=CODE,
    output:
        csv=f"{RESULTS}/runs.csv",
        page=report(
            f"{RESULTS}/runs.html",
            caption="../report/runs.rst",
            category="Runs",
            labels={"table": "settings, provenance, times"},
        ),
    log:
        f"{RESULTS}/logs/runs.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        results=subpath(output.csv, parent=True),
        out=subpath(output.csv, strip_suffix=".csv"),
    shell:
        "python -m workflow.analysis runs --experiments {input.experiments:q}"
        " --results {params.results:q} --out {params.out:q} > {log:q} 2>&1 || say_why {log:q}"


rule runs:
    input:
        rules.list_runs.output,
        metrics_for(FIGURE_RUNS),
    localrule: True


rule compare:
    # With the results that this repository holds; fails where a mean differs by more than it may.
    input:
        metrics_for(FIGURE_RUNS),
        tables=[f"{TABLES}/{name}.csv" for name in EXPERIMENTS.experiments],
    # No output: it answers whenever it is asked, and its table stays where means differ.
    log:
        f"{RESULTS}/logs/compare.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        reference=str(SOURCE / "results/reference" / SCALE / "tables"),
        out=f"{RESULTS}/compare.csv",
    shell:
        "python -m workflow.analysis compare --tables {input.tables:q}"
        " --reference {params.reference:q} --out {params.out:q} > {log:q} 2>&1 || say_why {log:q}; cat {log:q}"
