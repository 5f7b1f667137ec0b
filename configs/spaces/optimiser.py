"""Rates and momenta of the optimisers, around the published ones and the demo's.

    python -m launch.search --space=configs/spaces/optimiser.py --base=configs/demo.py --trials=64

Parameters are named as the keys that they become, so that the base itself is a point of the space.
"""


def suggest(trial):
    def rate(key, low, high):
        return trial.suggest_float(key, low, high, log=True)

    def number(key, low, high):
        return trial.suggest_float(key, low, high)

    return {
        "optimizer.learning_rate": rate("optimizer.learning_rate", 1e-4, 2e-2),
        "optimizer.residual_learning_rate": rate("optimizer.residual_learning_rate", 1e-2, 1.0),
        "optimizer.head_learning_rate": rate("optimizer.head_learning_rate", 1e-3, 0.3),
        "optimizer.b1": number("optimizer.b1", 0.3, 0.95),
        "optimizer.momentum": number("optimizer.momentum", 0.5, 0.95),
        "optimizer.decay": trial.suggest_categorical("optimizer.decay", ["none", "cosine"]),
    }
