"""The guide's demo and the other examples, as a user runs them."""

from __future__ import annotations

import sys
from pathlib import Path

from e2e import Site

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_guides_demo_runs_without_ray(site: Site) -> None:
    """Word for word, so on the guide's own ports: 31501 and 2379."""
    done = site.command(sys.executable, str(EXAMPLES / "single_node.py"))
    assert done.code == 0, done.err
    assert done.out.startswith("output: TensorDict(batch_size=[2], fields={input: f32[")


def test_values_come_back_byte_for_byte_in_another_process(site: Site) -> None:
    owner = site.start(
        """
        tq.init(conf())
        ragged = torch.nested.as_nested_tensor(
            [torch.arange(n + 1) for n in range(5)], layout=torch.jagged
        )
        big = torch.arange(5 * 1_000_000, dtype=torch.int32).reshape(5, -1)
        fields = TensorDict(
            {"r": ragged, "big": big, "x": torch.arange(5)}, batch_size=[5]
        )
        keys = [f"k{n}" for n in range(5)]
        tq.kv_batch_put(keys, "train", fields, tags=[{"n": n} for n in range(5)])
        say("put")
        wait_for_line()
        say(tq.kv_list("train"))
        tq.close()
        """
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "put\n"
    reader = site.run(
        """
        back = tq.kv_batch_get(["k4", "k1"], "train")
        assert [row.tolist() for row in back["r"].unbind()] == [[0,1,2,3,4], [0,1]]
        big = torch.arange(5 * 1_000_000, dtype=torch.int32).reshape(5, -1)
        for got, row in zip(back["big"].unbind(), (4, 1)):
            assert torch.equal(got, big[row])
            got.zero_()  # What was returned is the reader's own.
        again = tq.kv_batch_get("k4", "train", "big")["big"].unbind()[0]
        assert torch.equal(again, big[4])
        assert back["x"].tolist() == [4, 1]
        tq.kv_clear(["k0", "k2", "k3"], "train")
        tq.close()
        """
    )
    assert reader.code == 0, reader.err
    out, err = owner.communicate("\n", timeout=60)
    assert owner.returncode == 0, err
    assert out == "{'train': {'k1': {'n': 1}, 'k4': {'n': 4}}}\n"


def test_a_batch_of_200000_rows(site: Site) -> None:
    done = site.run(
        """
        tq.init(conf())
        keys = [f"sample/{n} \\N{PARTY POPPER}" for n in range(200_000)]
        fields = TensorDict({"x": torch.arange(200_000)}, batch_size=[200_000])
        assert len(tq.kv_batch_put(keys, "train", fields)) == 200_000
        back = tq.kv_batch_get(keys[::-1], "train")
        assert torch.equal(back["x"], torch.arange(199_999, -1, -1))
        assert len(tq.kv_list("train")["train"]) == 200_000
        tq.kv_clear(keys, "train")
        assert tq.kv_list("train") == {"train": {}}
        tq.close()
        """
    )
    assert done.code == 0, done.err
