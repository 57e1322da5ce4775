#!/bin/sh
# Make the test model from nothing: corpus, training, export, figures, samples.
#   tests/speech/train.sh [FOLDER]    FOLDER keeps the corpus and the checkpoints (2 GB)
set -eu
cd "$(dirname "$0")/../.."
work=${1:-build/speech}
mkdir -p "$work"
python=$work/venv/bin/python
if [ ! -x "$python" ]; then
    python3 -m venv "$work/venv"
    "$python" -m pip install --quiet -r tests/speech/requirements.txt
fi
# glibc gives freed memory back at once, and getting it anew for every batch is slow.
export MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1 OMP_NUM_THREADS=1
"$python" -m tests.speech.train "$work" --model tests/speech/model
"$python" -m tests.speech.evaluate tests/speech/model
"$python" -m tests.speech.samples tests/speech/model tests/speech/samples
