"""What is to be made: prompt files, configs, packs, facts of models, plans, extensions, reruns."""
