"""What the project does with damaged inputs, full disks and forbidden folders."""
