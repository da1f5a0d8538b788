# Judge the claims, list the runs, and compare with the reference results.


rule judge:
    input:
        tables=CAMPAIGN.table_files([*CAMPAIGN.experiments_with_results, THEORY]),
        experiments=EXPERIMENTS_FILE,
        stated=stated_sources(),
        code=analysis_sources(),
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
        "python -m workflow.forks workflow.analysis claims --experiments {input.experiments:q}"
        " --tables {input.tables:q} --out {output.csv:q} > {log:q} 2>&1 || say_why {log:q}"


rule overview:
    # Say on the report's first page what was found.
    input:
        claims=rules.judge.output.csv,
        # Figure 1(a), where the scale has it
        image=f"{RESULTS}/figures/{CAMPAIGN.available_figures[0]}.png",
        experiments=EXPERIMENTS_FILE,
        stated=stated_sources(),
        code=analysis_sources(),
    output:
        f"{RESULTS}/overview.html",
    log:
        f"{RESULTS}/logs/overview.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        runs="--runs" if CONFIG.tables is None else "",
    shell:
        "python -m workflow.forks workflow.analysis overview --claims {input.claims:q} --image {input.image:q}"
        " --experiments {input.experiments:q} {params.runs} --out {output:q} > {log:q} 2>&1 || say_why {log:q}"


rule claims:
    input:
        rules.judge.output,
        CAMPAIGN.requested_metrics(CAMPAIGN.runs_by_experiment),
    localrule: True


rule list_runs:
    # List settings, provenance and times, read from the files beside the metrics.
    input:
        experiments=EXPERIMENTS_FILE,
        metrics=CAMPAIGN.metrics_files(CAMPAIGN.runs_by_experiment),
        code=analysis_sources(),
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
        "python -m workflow.forks workflow.analysis runs --experiments {input.experiments:q}"
        " --results {params.results:q} --out {params.out:q} > {log:q} 2>&1 || say_why {log:q}"


rule runs:
    input:
        rules.list_runs.output,
        CAMPAIGN.requested_metrics(CAMPAIGN.runs_by_experiment),
    localrule: True


rule compare:
    # Compare with this repository's reference results; fails where a mean differs by more than allowed.
    input:
        CAMPAIGN.requested_metrics(CAMPAIGN.runs_by_experiment),
        tables=CAMPAIGN.table_files(CAMPAIGN.runs_by_experiment),
    # No output: it runs whenever requested, and its table stays after a failure.
    log:
        f"{RESULTS}/logs/compare.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        reference=str(SOURCE / "results/reference" / CONFIG.scale / "tables"),
        out=f"{RESULTS}/compare.csv",
    shell:
        "python -m workflow.forks workflow.analysis compare --tables {input.tables:q}"
        " --reference {params.reference:q} --out {params.out:q} > {log:q} 2>&1 || say_why {log:q}; cat {log:q}"
