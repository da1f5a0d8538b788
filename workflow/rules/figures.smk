# Metrics of runs to one tidy table per figure, and to the figure.


rule table:
    input:
        experiments=f"experiments/{SCALE}.yaml",
        metrics=metrics_of,
    output:
        csv=f"{RESULTS}/tables/{{experiment}}.csv",
        parquet=f"{RESULTS}/tables/{{experiment}}.parquet",
    log:
        f"{RESULTS}/logs/table-{{experiment}}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        results=subpath(output.csv, ancestor=2),
        out=subpath(output.csv, strip_suffix=".csv"),
    shell:
        "python -m workflow.analysis table --experiments {input.experiments:q}"
        " --experiment {wildcards.experiment} --results {params.results:q} --out {params.out:q}"
        " > {log:q} 2>&1 || say_why {log:q}"


rule figure:
    input:
        f"{RESULTS}/tables/{{experiment}}.parquet",
    output:
        multiext(f"{RESULTS}/figures/{{experiment}}", ".png", ".pdf", ".csv"),
    log:
        f"{RESULTS}/logs/figure-{{experiment}}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        title=lambda wildcards: EXPERIMENTS.experiments[wildcards.experiment].title,
        plot=CONFIG.plot.model_dump_json(),
        out=subpath(output[0], strip_suffix=".png"),
    shell:
        "python -m workflow.analysis {wildcards.experiment} --table {input:q} --out {params.out:q}"
        " --title {params.title:q} --plot {params.plot:q} > {log:q} 2>&1 || say_why {log:q}"


rule fig1a:
    input:
        multiext(f"{RESULTS}/figures/fig1a", ".png", ".pdf", ".csv"),


rule figures:
    input:
        rules.fig1a.input,
