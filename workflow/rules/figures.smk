# Make one tidy table per experiment from the metrics of its runs, and figures from tables.


rule table:
    input:
        experiments=EXPERIMENTS_FILE,
        metrics=lambda wildcards: CAMPAIGN.metrics_files([wildcards.experiment]),
        stated=stated_sources(),
        code=analysis_sources(),
    output:
        f"{RESULTS}/tables/{{experiment}}.csv",
    log:
        f"{RESULTS}/logs/table-{{experiment}}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        results=subpath(output[0], ancestor=2),
        missing="--only-finished" if CONFIG.only_finished else "",
    shell:
        "python -m workflow.forks workflow.analysis table --experiments {input.experiments:q}"
        " --experiment {wildcards.experiment:q} --results {params.results:q} {params.missing}"
        " --out {output:q} > {log:q} 2>&1 || say_why {log:q}"


rule simulation:
    # Simulate the theory on models whose drift is known; needs no run.
    input:
        multiext(
            f"{SOURCE / 'workflow/analysis/theory'}/", "simulation.py", "slow_sde.py", "figure.py"
        ),
    output:
        f"{RESULTS}/tables/theory.csv",
    log:
        f"{RESULTS}/logs/simulation.log",
    conda:
        "../../envs/analysis.yaml"
    threads: ALLOCATION.all_cores
    shell:
        "python -m workflow.analysis theory --processes {threads} --out {output:q} > {log:q} 2>&1 || say_why {log:q}"


rule figure:
    input:
        tables=lambda wildcards: CAMPAIGN.figure_tables(wildcards.figure),
        experiments=EXPERIMENTS_FILE,
        stated=stated_sources(),
        code=analysis_sources(),
    output:
        multiext(f"{RESULTS}/figures/{{figure}}", ".png", ".pdf", ".csv"),
    log:
        f"{RESULTS}/logs/figure-{{figure}}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        plot=CONFIG.plot.model_dump_json(),
        out=subpath(output[0], strip_suffix=".png"),
    shell:
        "python -m workflow.forks workflow.analysis figure {wildcards.figure:q} --tables {input.tables:q}"
        " --experiments {input.experiments:q} --plot {params.plot:q} --out {params.out:q}"
        " > {log:q} 2>&1 || say_why {log:q}"


rule page:
    # Write the figure and its caption for the report.
    input:
        image=f"{RESULTS}/figures/{{figure}}.png",
        experiments=EXPERIMENTS_FILE,
        stated=stated_sources(),
        code=analysis_sources(),
    output:
        report(
            f"{RESULTS}/pages/{{figure}}.html",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{RESULTS}/logs/page-{{figure}}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python -m workflow.forks workflow.analysis page {wildcards.figure:q} --image {input.image:q}"
        " --experiments {input.experiments:q} --out {output:q} > {log:q} 2>&1 || say_why {log:q}"


for _figure in [*CAMPAIGN.figures, THEORY]:

    rule:
        name:
            _figure
        input:
            figure_files(_figure),
            CAMPAIGN.requested_metrics(CAMPAIGN.experiments_of(_figure)),
        localrule: True


# Make all figures that the scale has experiments for.
rule figures:
    input:
        [file for figure in CAMPAIGN.available_figures for file in figure_files(figure)],
        CAMPAIGN.requested_metrics(CAMPAIGN.runs_by_experiment),
    localrule: True
