include: "workflow/Snakefile"


workflow.default_target = "all"  # an include does not pass its default target on
