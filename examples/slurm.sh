#!/usr/bin/env bash
# One job for each LLM of a profile, all into one response store; then one job for the rest of the study:
#   LLMS="llama2-7b mistral-7b gemma-7b" STORE=/shared/responses sbatch --array=0-2 examples/slurm.sh paper
#   STORE=/shared/responses sbatch --gres=gpu:1 examples/slurm.sh paper
# A job that is stopped by its time limit goes on where it was when it is submitted again.
#SBATCH --job-name=llm-routing
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --signal=INT@120
set -euo pipefail
profile="${1:-paper}"
store="${STORE:?set STORE to a folder that all nodes see}"
# srun passes the signal on, two minutes before the limit; what is finished is then written.
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    read -ra llms <<<"${LLMS:?set LLMS to the names of LLMs of the profile}"
    srun python examples/sample_one.py "$profile" "${llms[$SLURM_ARRAY_TASK_ID]}" "$store"
else
    srun llm-routing run --profile "$profile" --set generation.responses="$store"
fi
