"""The settings of the diarization model, which is laid out as the hub's own repositories are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

DIARIZATION = Path(__file__).parent / "diarization"
DIMENSION = 64  # of the vectors that tell voices apart


def write_settings(folder: Path) -> None:
    """Write `config.yaml`, and `plda`: pyannote loads it, but this clustering ignores it."""
    (folder / "plda").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(_SETTINGS, sort_keys=False))
    nothing, same = np.zeros(DIMENSION), np.eye(DIMENSION)
    # Different variances: equal ones leave the order of the dimensions to rounding.
    spread = np.linspace(2, 1, DIMENSION)
    np.savez_compressed(folder / "plda" / "plda.npz", mu=nothing, tr=same, psi=spread)
    np.savez_compressed(
        folder / "plda" / "xvec_transform.npz", mean1=nothing, mean2=nothing, lda=same
    )


# The least size of a cluster is the greatest pyannote takes: windows with two voices in them
# make small ones. The threshold was chosen on voices that neither training nor test uses;
# from 0.7 to 0.8 nearly all of their dialogues have two speakers.
_SETTINGS = {
    "dependencies": {"pyannote.audio": "4.0.0"},
    "pipeline": {
        "name": "pyannote.audio.pipelines.SpeakerDiarization",
        "params": {
            "segmentation": "$model/segmentation",
            "segmentation_step": 0.1,
            "segmentation_batch_size": 32,
            "embedding": "$model/embedding",
            "embedding_batch_size": 32,
            "plda": "$model/plda",
            "clustering": "AgglomerativeClustering",
        },
    },
    "params": {
        "segmentation": {"threshold": 0.5, "min_duration_off": 0.3},
        "clustering": {"method": "centroid", "threshold": 0.8, "min_cluster_size": 20},
    },
}
