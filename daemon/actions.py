"""What log records are about: words to search by, which stay the same when texts change."""

from enum import StrEnum


class Action(StrEnum):
    """The field ``action`` of a record; ``meaning`` is one line for people."""

    meaning: str

    def __new__(cls, word: str, meaning: str) -> "Action":
        member = str.__new__(cls, word)
        member._value_ = word
        member.meaning = meaning
        return member

    JOB_ARRIVED = "job.arrived", "A complete clip was found: a new job, or a changed one."
    JOB_CLAIMED = "job.claimed", "A job left the queue; its attempt is counted."
    JOB_BEGUN = "job.begun", "Work on a clip begins."
    JOB_DONE = "job.done", "The result is in the output folder."
    JOB_SKIPPED = "job.skipped", "Nothing was to be done, and why."
    JOB_FAILED = "job.failed", "There will be no result, and why."
    JOB_REQUEUED = "job.requeued", "Work ended before the clip did; it goes on from its checkpoint."
    JOB_CANCELLED = "job.cancelled", "Somebody cancelled the job, or took its clip away."
    JOB_RETRIED = "job.retried", "Somebody put an ended job into the queue again."
    STAGE_DONE = "stage.done", "A clip has been through a stage."
    MODEL_CHOSEN = "model.chosen", "Which model the setting auto stands for, and why."
    DEVICE_READY = "device.ready", "A device has loaded its models."
    DEVICE_DIED = "device.died", "A device's process ended; it is started again."
    DEVICE_LOST = "device.lost", "A device is given up; the others carry on."
    WORKER_DIED = "worker.died", "A reader's or the pool's process ended; its task is done again."
    WORKER_RECORD = "worker.record", "A worker process said something; the field worker names it."
    INBOX_REFUSED = "inbox.refused", "A file in the inbox is not taken, and why."
    INBOX_PROBLEM = "inbox.problem", "The inbox cannot be watched as it should be."
    STORE_PROBLEM = "store.problem", "The job store cannot be written; it is tried again."
    STORE_RECOVERED = "store.recovered", "A job that an earlier end interrupted was settled."
    DISK_FULL = "disk.full", "There is no space for results; work waits for some."
    SERVICE_LOADING = "service.loading", "The daemon has begun; models are being loaded."
    SERVICE_READY = "service.ready", "The daemon serves its inbox."
    SERVICE_PAUSED = "service.paused", "No job is taken until it is resumed."
    SERVICE_RESUMED = "service.resumed", "Jobs are taken again."
    SERVICE_DRAINING = "service.draining", "What runs is finished; nothing new is begun."
    SERVICE_STOPPING = "service.stopping", "Workers are being stopped."
    SERVICE_ENDED = "service.ended", "The daemon has ended."
    CONTROL_REQUEST = "control.request", "Somebody asked for something through the control socket."
    CONTROL_REFUSED = "control.refused", "A request of the control socket was not allowed."
    LIBRARY = "library", "A library said something, or warned; the field library names it."
    NOTE = "note", "Something else that goes on."
    WARNING = "warning", "Something else that the user should know."
    TRACE = "trace", "A traceback, or where a process stood; it belongs to the record before."
