"""Files brought before they are asked for: one after the other, each once, and whoever needs one waits for no other."""

import pickle
import threading

from vpoet.data.errands import Errands

PATIENCE = 20.0


def test_one_after_the_other_and_each_once() -> None:
    errands, brought, go = Errands(), [], threading.Event()
    done = threading.Event()

    def bring(name: str) -> None:
        assert go.wait(PATIENCE)
        brought.append(name)

    for name in ("a", "b", "a", "b", "c"):
        errands.add(name, lambda name=name: bring(name))
    errands.add("end", done.set)
    go.set()
    assert done.wait(PATIENCE)
    assert brought == ["a", "b", "c"]


def test_who_takes_waits_for_what_is_under_way_and_for_nothing_else() -> None:
    errands, brought = Errands(), []
    begun, go = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert go.wait(PATIENCE)
        brought.append("slow")

    errands.add("slow", slow)
    errands.add("queued", lambda: brought.append("queued"))
    assert begun.wait(PATIENCE)
    errands.take("queued")  # at once, and it is brought no more
    errands.take("never asked for")
    assert not brought
    taken = threading.Thread(target=lambda: (errands.take("slow"), brought.append("taken")))
    taken.start()
    taken.join(0.1)
    assert taken.is_alive()
    go.set()
    taken.join(PATIENCE)
    assert brought == ["slow", "taken"]


def test_a_failure_is_nobodys_and_the_next_one_comes() -> None:
    errands, done = Errands(), threading.Event()
    errands.add("fails", lambda: 1 / 0)
    errands.add("comes", done.set)
    assert done.wait(PATIENCE)
    errands.take("fails")


def test_it_goes_to_another_process_empty() -> None:
    errands, go, done = Errands(), threading.Event(), threading.Event()
    errands.add("a", lambda: go.wait(PATIENCE))
    there = pickle.loads(pickle.dumps(errands))
    there.take("a")
    there.add("a", done.set)
    assert done.wait(PATIENCE)
    go.set()
