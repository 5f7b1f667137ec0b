"""Weights of the losses and the focal loss's γ, around the published ones and the demo's.

python -m launch.search --space=configs/spaces/losses.py --base=configs/demo.py --trials=64
"""


def suggest(trial):
    weights = ("loss.cosine_weight", "loss.focal_weight", "loss.l1_weight")
    return {
        **{key: trial.suggest_float(key, 0.03, 3.0, log=True) for key in weights},
        "loss.focal_gamma": trial.suggest_float("loss.focal_gamma", 0.0, 6.0),
    }
