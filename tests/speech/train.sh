#!/bin/sh
# Make the test models from nothing: corpora, training, export, figures, samples.
#   tests/speech/train.sh [FOLDER]                  the Whisper model and its samples
#   tests/speech/train.sh --whisperx [FOLDER]       the models of alignment and diarization
# FOLDER keeps corpora and checkpoints (2 GB each).
set -eu
cd "$(dirname "$0")/../.."
requirements=requirements
if [ "${1:-}" = --whisperx ]; then
    # Its own environment: whisperx wants older versions of what exports the Whisper model.
    requirements=requirements-whisperx
    shift
fi
work=${1:-build/speech}
mkdir -p "$work"
python=$work/$requirements/bin/python
if [ ! -x "$python" ]; then
    python3 -m venv "$work/$requirements"
    "$python" -m pip install --quiet -r "tests/speech/$requirements.txt"
fi
# glibc gives freed memory back at once, and getting it anew for every batch is slow.
export MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1 OMP_NUM_THREADS=1
if [ "$requirements" = requirements ]; then
    "$python" -m tests.speech.train "$work" --model tests/speech/model
    "$python" -m tests.speech.evaluate tests/speech/model
    "$python" -m tests.speech.samples tests/speech/model tests/speech/samples
else
    "$python" -m tests.speech.train_alignment "$work" --model tests/speech/alignment
    "$python" -m tests.speech.evaluate_alignment
    "$python" -m tests.speech.train_diarization "$work" --model tests/speech/diarization
    "$python" -m tests.speech.evaluate_diarization
fi
