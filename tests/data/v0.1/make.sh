#!/usr/bin/env bash
# How the data in this folder were made, by version 0.1.0 at commit 986d1c0. A record: no test runs
# it, and it must not be run again over the data.
#
# Traces name the host that made them, so this ran as
#
#     unshare --uts sh -c 'hostname maker && ./make.sh'
#
# The dead rollouts are real. The engine refuses a question that can never fit into its cache, with
# the reason too_long, and how large the cache is belongs to the execution, which a command may
# change. The plan gives it 11 pages. The first run has 10, too few for the questions about the two
# longest prompts: both rollouts of each die. The rerun has the 11 of the plan, enough for one of
# the two prompts, and the longest one dies again.
set -euo pipefail
cd "$(dirname "$0")"
export OMP_NUM_THREADS=1

dead=4  # the exit code: complete, with dead rollouts

coppice plan prompts.jsonl run --config run.toml --rollouts 2 --shard-rollouts 6
coppice run run --set execution.cache_gigabytes=0.00073 || [ $? = $dead ]
coppice rerun run || [ $? = $dead ]
coppice score run --scorer toy --scorer thoughts --scorer critiques --scorer tokens \
  --scorer phash --scorer prompt_filter
coppice curate run sets/sft --recipe sft.toml
coppice curate run sets/grpo --recipe grpo.toml

# Empty folders, which git does not keep.
find . -type d -empty -delete
