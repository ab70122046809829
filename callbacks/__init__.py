"""Lightning callbacks, one a file; each works on any LightningModule that offers what `umd.protocols` asks for."""

from callbacks.adaptive_modulation import AdaptiveModulation
from callbacks.compile import Compile
from callbacks.feature_writer import FeatureWriter
from callbacks.finite_guard import FiniteGuard
from callbacks.gradient_modulation import GradientModulation
from callbacks.learning_rate import LearningRate
from callbacks.modality_coordination import ModalityCoordination
from callbacks.prediction_writer import PredictionWriter
from callbacks.progress_file import ProgressFile
from callbacks.reconstruction_images import ReconstructionImages
from callbacks.results_table import ResultsTable
from callbacks.sharpness_aware import SharpnessAware
from callbacks.weight_noise import WeightNoise
from callbacks.weight_perturbation import WeightPerturbation

__all__ = [
    "AdaptiveModulation",
    "Compile",
    "FeatureWriter",
    "FiniteGuard",
    "GradientModulation",
    "LearningRate",
    "ModalityCoordination",
    "PredictionWriter",
    "ProgressFile",
    "ReconstructionImages",
    "ResultsTable",
    "SharpnessAware",
    "WeightNoise",
    "WeightPerturbation",
]
