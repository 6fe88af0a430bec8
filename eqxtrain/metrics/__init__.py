"""Metrics: monoids that no split of the data can change."""

from ._accuracy import Accuracy as Accuracy, TopKAccuracy as TopKAccuracy
from ._base import Metric as Metric
from ._confusion import (
    CohenKappa as CohenKappa,
    ConfusionMatrix as ConfusionMatrix,
    MatthewsCorrCoef as MatthewsCorrCoef,
)
from ._correlation import (
    ExplainedVariance as ExplainedVariance,
    PearsonCorrCoef as PearsonCorrCoef,
    R2Score as R2Score,
    SpearmanCorrCoef as SpearmanCorrCoef,
)
from ._curves import PrecisionRecallCurve as PrecisionRecallCurve, ROCCurve as ROCCurve
from ._foreign import from_clu as from_clu
from ._function import from_function as from_function
from ._gather import Gather as Gather, Last as Last
from ._gradients import (
    DeadUnits as DeadUnits,
    GradientNorm as GradientNorm,
    LearningRate as LearningRate,
    UpdateNorm as UpdateNorm,
    UpdateRatio as UpdateRatio,
)
from ._modes import (
    Max as Max,
    Mean as Mean,
    Min as Min,
    Modes as Modes,
    Std as Std,
    Sum as Sum,
)
from ._precision_recall import (
    F1 as F1,
    BalancedAccuracy as BalancedAccuracy,
    ClassMetric as ClassMetric,
    FBeta as FBeta,
    Jaccard as Jaccard,
    Precision as Precision,
    Recall as Recall,
    Specificity as Specificity,
)
from ._probabilities import (
    CalibrationCurve as CalibrationCurve,
    CalibrationError as CalibrationError,
    LogLoss as LogLoss,
    Perplexity as Perplexity,
)
from ._ranking import (
    AUROC as AUROC,
    AveragePrecision as AveragePrecision,
    PrecisionAtRecall as PrecisionAtRecall,
    RecallAtPrecision as RecallAtPrecision,
)
from ._regression import (
    CosineSimilarity as CosineSimilarity,
    HuberLoss as HuberLoss,
    MeanAbsoluteError as MeanAbsoluteError,
    MeanAbsolutePercentageError as MeanAbsolutePercentageError,
    MeanSquaredError as MeanSquaredError,
    MeanSquaredLogError as MeanSquaredLogError,
    PinballLoss as PinballLoss,
    RootMeanSquaredError as RootMeanSquaredError,
)
from ._wrappers import On as On, Weighted as Weighted
