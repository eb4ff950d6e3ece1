"""What squeue and scontrol print becomes the same jobs, elements of arrays one by one."""

from __future__ import annotations

from jobs import queue
from jobs.queue import Job

# As Slurm 22.05 prints them, shortened in the middle.
SCONTROL = (
    "JobId=5 ArrayJobId=1 ArrayTaskId=0 ArrayTaskThrottle=2 JobName=wrap JobState=RUNNING "
    "Reason=None Dependency=(null) RunTime=00:00:04 StartTime=1795447758 EndTime=1795447818 "
    "ReqB:S:C:T=0:0:*:* Command=(null) WorkDir=/my runs/a=b/code StdErr=/dev/null Power= \n"
    "JobId=1 ArrayJobId=1 ArrayTaskId=2,4-8:2%2 ArrayTaskThrottle=2 JobName=wrap "
    "JobState=PENDING Reason=JobArrayTaskLimit Dependency=(null) StartTime=Unknown "
    "EndTime=Unknown WorkDir=/my runs/a=b/code StdErr=/dev/null Power= \n"
    "JobId=7 JobName=wrap JobState=PENDING Reason=Resources Dependency=(null) "
    "StartTime=1795447818 EndTime=1795448418 WorkDir=/tmp StdErr=/dev/null Power= \n"
)
SQUEUE = (
    "1_0|RUNNING|1795447818|1795447758|None|/my runs/a=b/code\n"
    "1_2|PENDING|N/A|N/A|JobArrayTaskLimit|/my runs/a=b/code\n"
    "1_4|PENDING|N/A|N/A|JobArrayTaskLimit|/my runs/a=b/code\n"
    "1_6|PENDING|N/A|N/A|JobArrayTaskLimit|/my runs/a=b/code\n"
    "1_8|PENDING|N/A|N/A|JobArrayTaskLimit|/my runs/a=b/code\n"
    "7|PENDING|1795448418|1795447818|Resources|/tmp\n"
)


def test_squeue_and_scontrol_say_the_same() -> None:
    assert queue.parse_scontrol(SCONTROL) == queue.parse_squeue(SQUEUE)


def test_a_job_has_its_times_folder_and_index() -> None:
    first, second, *_, last = queue.parse_squeue(SQUEUE)

    folder = "/my runs/a=b/code"
    assert first == Job("1_0", "RUNNING", "None", folder, 1795447818.0, 1795447758.0)
    assert (second.ends_at, second.starts_at) == (None, None)
    assert [first.index, second.index, last.index] == [0, 2, None]


def test_a_folder_may_hold_the_separator() -> None:
    [job] = queue.parse_squeue("7|RUNNING|1|1|None|/a|b/code\n")

    assert job.work_dir == "/a|b/code"


def test_what_is_no_job_is_passed_over() -> None:
    assert queue.parse_squeue("a site's banner\n\n") == []
    assert queue.parse_scontrol("No jobs in the system\n") == []
