"""Base class of the errors of training, which are defined where they are raised; `ConfigInvalid`, `Diverged`.

TrainError
 ├─ of `runtime.errors.PathError` as well, with path, reason and advice:
 │   ├─ RunConfigUnreadable       a file does not describe a training run
 │   ├─ LayoutError               a data set is not laid out as expected
 │   ├─ ClipSetError              a set of clips cannot be read
 │   ├─ CheckpointError           a checkpoint cannot be read
 │   ├─ InitialWeightsError       weights cannot be loaded into the backbone
 │   ├─ TeacherError              a teacher cannot be built or read
 │   ├─ StateUnreadable           an interrupted run cannot be resumed
 │   ├─ ModelNotWritten           a model, a teacher or the state of a run cannot be written
 │   └─ ForgeryError              forged videos cannot be made
 ├─ ConfigInvalid              settings are out of range or contradict each other
 ├─ Diverged                   a model's outputs or gradients are no finite numbers
 ├─ SplitLeak                  a group has videos in more than one split
 ├─ GroupUnknown               a named group has no clip or video
 ├─ PrepareError               a data set cannot be prepared or resumed
 ├─ CalibrationError           scores cannot be calibrated
 │   └─ TemporalClassifierError   a temporal classifier cannot be fitted
 ├─ ReportError                a report cannot be written
 ├─ TranscodingUnknown         a transcoding of the benchmark does not exist
 └─ TranscodingFailed          a video of the benchmark cannot be transcoded
"""

from __future__ import annotations

from runtime.errors import UnmaskError


class TrainError(UnmaskError, ValueError):
    """Base class of the errors of training; `str()` is one line that says what to do."""


class ConfigInvalid(TrainError):
    """Settings of a model or a run that are out of range or contradict each other."""


class Diverged(TrainError):
    """A model whose outputs or gradients are no finite numbers; the message is one line with advice."""
