"""The list of cases. Each is a function of a Bench, named by its id in the torture list; scripts/torture runs them all,
tests/test_torture.py those that are fast."""
import threading
import time

from .server import Server

CASES = []


class Case:
    def __init__(self, run, id, fast):
        self.run, self.id, self.fast, self.title = run, id, fast, run.__doc__.split("\n")[0]


def case(id, fast=True):
    def add(run):
        CASES.append(Case(run, id, fast))
        return run

    return add


class Bench:
    """What a case works with: a server that all share, a way to start others, and how much is to be done."""

    def __init__(self, binary, model, full, seconds=None):
        self.binary, self.model, self.full, self.seconds = binary, model, full, seconds
        self.shared, self.notes = None, []

    def start(self, *arguments, model=None, **options):
        return Server(self.binary, model or self.model, *arguments, **options)

    @property
    def server(self):
        if self.shared is None:
            self.shared = self.start()
            self.shared.healthy()
            self.descriptors = self.shared.descriptors()
        return self.shared

    def many(self, fast, full):
        return full if self.full else fast

    def note(self, text):
        """A measured figure, for the report of scripts/torture."""
        self.notes.append(text)

    def run(self, one):
        self.notes = []
        if self.shared is not None and self.shared.process.poll() is not None:
            self.shared = None  # an earlier case ended it
        one.run(self)
        if self.shared is not None:
            self.shared.settle(descriptors=self.descriptors)
            self.shared.healthy()

    def close(self):
        if self.shared is not None:
            assert self.shared.stop() == 0, self.shared.errors()[-2000:]


def together(jobs):
    """Runs functions at once, one thread each, and raises the first failure."""
    failures = []

    def guarded(job):
        try:
            job()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def timed(action):
    begin = time.monotonic()
    result = action()
    return result, time.monotonic() - begin
