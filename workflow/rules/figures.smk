# Metrics of runs to one tidy table per experiment, and to figures.


rule table:
    input:
        experiments=str(EXPERIMENTS_FILE),
        metrics=metrics_of,
        code=CODE,
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
        "python -m workflow.analysis table --experiments {input.experiments:q}"
        " --experiment {wildcards.experiment:q} --results {params.results:q} {params.missing}"
        " --out {output:q} > {log:q} 2>&1 || say_why {log:q}"


rule simulation:
    # Needs no run: the theory on models whose drift is known.
    input:
        multiext(f"{SOURCE / 'workflow/analysis'}/", "simulation.py", "slow_sde.py", "theory.py"),
    output:
        f"{RESULTS}/tables/theory.csv",
    log:
        f"{RESULTS}/logs/simulation.log",
    conda:
        "../../envs/analysis.yaml"
    threads: CORES
    shell:
        "python -m workflow.analysis theory --processes {threads} --out {output:q} > {log:q} 2>&1 || say_why {log:q}"


rule figure:
    input:
        tables=tables_of,
        experiments=str(EXPERIMENTS_FILE),
        code=CODE,
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
        "python -m workflow.analysis figure {wildcards.figure:q} --tables {input.tables:q}"
        " --experiments {input.experiments:q} --plot {params.plot:q} --out {params.out:q}"
        " > {log:q} 2>&1 || say_why {log:q}"


rule page:
    # The figure with its caption, for the report
    input:
        image=f"{RESULTS}/figures/{{figure}}.png",
        code=CODE,
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
        "python -m workflow.analysis page {wildcards.figure:q} --image {input.image:q}"
        " --out {output:q} > {log:q} 2>&1 || say_why {log:q}"


for _figure in [*FIGURES, THEORY]:

    rule:
        name:
            _figure
        input:
            figure_files(_figure),
            metrics_for(experiments_of(_figure)),
        localrule: True


# All that the scale has experiments for
rule figures:
    input:
        [file for figure in HERE for file in figure_files(figure)],
        metrics_for(FIGURE_RUNS),
    localrule: True
