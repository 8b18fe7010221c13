"""init(), close() and the key-value functions.

Each process has one client. The first init() of all starts the queue and makes its
process the owner, whose close() ends it; any other init() attaches, and its close()
only detaches. A KV function attaches by itself where init() was not called.

An owner that ends without close() closes on its way out; one that is killed leaves
residue, which the next init() replaces.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from transfer_queue import _config
from transfer_queue._deadline import Deadline
from transfer_queue._pool import run_in_pool
from transfer_queue._queue import QueueClient, open_queue_connection
from transfer_queue._session import Session, find_place
from transfer_queue.client import TransferQueueClient
from transfer_queue.metadata import KVBatchMeta
from transfer_queue.storage.managers import StorageManagerFactory
from transfer_queue.utils.logging_utils import configure_from_environment
from transfer_queue.utils.yuanrong_utils import (
    get_local_ip_addresses,
    require_worker_host,
    split_address,
    worker_port_of,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from tensordict import TensorDict

_log = logging.getLogger("transfer_queue")

Conf = Any  # A DictConfig or a plain dict.
Tag = Mapping[str, Any]
DataParser = Callable[..., Any]

_ATTACH_TIMEOUT_S = 10.0

_TQ_CLIENT: TransferQueueClient | None = None
_TQ_CONTROLLER: Session | None = None  # What this process is attached to or owns.
_TQ_STORAGE: Callable[[], None] | None = None  # Owner only: ends what it started.

_owner_pid = 0
_lock = threading.RLock()

configure_from_environment()


# ---- Life ----------------------------------------------------------------------------


def init(conf: Conf | None = None) -> DictConfig | Any:
    """Attach to the queue, or start it if there is none.

    `conf` is merged over the packaged config.yaml. Returns the merged configuration if
    this process started the queue, and `conf` itself if it attached. Calling it again
    in the same process changes nothing.
    """
    global _TQ_STORAGE, _owner_pid
    with _lock:
        if _TQ_CLIENT is not None:
            _require_alive(_TQ_CLIENT)
            return conf
        merged = _config.prepare(conf)
        StorageManagerFactory.check_known(str(merged.backend.storage_backend))
        place = find_place(merged)
        _log.info("looking for the queue: %s", place.description)
        session = place.attach_or_start(merged)
        if session.end is None:
            _attach_client(session)
            return conf
        _TQ_STORAGE, _owner_pid = session.end, os.getpid()
        try:
            _attach_client(session)
        except BaseException:
            close()
            raise
        return merged


def close() -> None:
    """Detach; in the process that started the queue, also end it. Safe to repeat."""
    global _TQ_CLIENT, _TQ_CONTROLLER, _TQ_STORAGE
    with _lock:
        client, _TQ_CLIENT = _TQ_CLIENT, None
        end, _TQ_STORAGE = _TQ_STORAGE, None
        _TQ_CONTROLLER = None
        is_owner = end is not None and _owner_pid == os.getpid()
        if client is not None and is_owner:
            client.end_queue_elsewhere()
        if client is not None:
            client.close()
        if end is not None and is_owner:
            end()


def get_client() -> TransferQueueClient:
    """This process's client; it must have called init()."""
    if _TQ_CLIENT is None:
        raise AssertionError(
            "Please initialize the TransferQueue first by calling `tq.init()`!"
        )
    return _TQ_CLIENT


def _maybe_create_tq_client(conf: Conf | None = None) -> TransferQueueClient:
    """The client; attaches to a running queue if this process has not yet."""
    if _TQ_CLIENT is not None:
        return _TQ_CLIENT
    with _lock:
        if _TQ_CLIENT is None and not _init_from_existing(conf):
            raise AssertionError(
                "TransferQueueController has not been initialized yet. "
                "Please call init() first."
            )
        return get_client()


def _init_from_existing(conf: Conf | None = None) -> bool:
    """Attach if there is a queue; True when there is."""
    with _lock:
        merged = _config.merge(conf)
        session = find_place(merged).attach(float(merged.controller.init_timeout_s))
        if session is None:
            return False
        _attach_client(session)
        return True


def _attach_client(session: Session) -> None:
    """Make this process's client for `session`; the store is reached at once."""
    global _TQ_CLIENT, _TQ_CONTROLLER
    name = str(session.config.backend.storage_backend)
    section = _config.backend_section(session.config, name)
    host = _own_worker_host(session.worker_addresses)
    if host is not None:
        section["host"] = host
    queue = _queue_of(session, name, section)
    client = TransferQueueClient(
        f"TransferQueueClient_{os.getpid()}",
        queue,
        float(session.config.controller.timeout_s),
    )
    try:
        if name == "Yuanrong":
            section["queue"], _ = queue.place(Deadline.after(_ATTACH_TIMEOUT_S))
        client.initialize_storage_manager(name, section)
        client.storage_manager.connect()
    except BaseException:
        client.close()
        raise
    verb = "attached to" if session.end is None else "started"
    _log.info("%s the queue: %s, controller %s", verb, session.place, session.address)
    _TQ_CLIENT, _TQ_CONTROLLER = client, session


def _queue_of(session: Session, backend: str, section: dict[str, Any]) -> QueueClient:
    """Its controller's client; the worker finds it again should it move."""
    connect = partial(open_queue_connection, secret=session.secret, name=session.name)
    if backend != "Yuanrong":
        return QueueClient(session.address, connect)
    port = worker_port_of(section)
    if not section.get("host"):
        section["host"] = require_worker_host(port)
    worker = (str(section["host"]), port)
    return QueueClient(session.address, partial(connect, worker=worker))


def _own_worker_host(worker_addresses: Sequence[str]) -> str | None:
    """The host of the worker that was started on this node."""
    local = set(get_local_ip_addresses()) if worker_addresses else set()
    hosts = [split_address(address)[0] for address in worker_addresses]
    return next((host for host in hosts if host in local), None)


def _require_alive(client: TransferQueueClient) -> None:
    try:
        client.ping()
    except RuntimeError as error:
        raise RuntimeError(
            f"The queue that this process uses is gone: {error} Call tq.close() and "
            "then tq.init() to find or start another."
        ) from error


def _close_at_exit() -> None:
    """An owner that forgot close(): what it started must not outlive it."""
    if _TQ_STORAGE is not None and _owner_pid == os.getpid():
        _log.info("the owner of the queue ends without close(): closing")
        with contextlib.suppress(Exception):
            close()


def _renew_lock_in_child() -> None:
    global _lock
    _lock = threading.RLock()


atexit.register(_close_at_exit)
os.register_at_fork(after_in_child=_renew_lock_in_child)


# ---- Key-value functions -------------------------------------------------------------


def kv_put(
    key: str,
    partition_id: str,
    fields: TensorDict | dict[str, Any] | None = None,
    tag: Tag | None = None,
    data_parser: DataParser | None = None,
) -> KVBatchMeta:
    """Store fields of one row and merge `tag` into its tags."""
    _refuse_data_parser(data_parser)
    if fields is None and tag is None:
        raise ValueError("Please provide at least one parameter of `fields` or `tag`.")
    return _put_one(key, partition_id, fields, tag)


async def async_kv_put(
    key: str,
    partition_id: str,
    fields: TensorDict | dict[str, Any] | None = None,
    tag: Tag | None = None,
    data_parser: DataParser | None = None,
) -> KVBatchMeta:
    """kv_put() for coroutines."""
    _refuse_data_parser(data_parser)
    if fields is None and tag is None:
        raise ValueError("Please provide at least one parameter of fields or tag.")
    return await run_in_pool(lambda: _put_one(key, partition_id, fields, tag))


def kv_batch_put(
    keys: list[str],
    partition_id: str,
    fields: TensorDict | None = None,
    tags: Sequence[Tag] | None = None,
    data_parser: DataParser | None = None,
) -> KVBatchMeta:
    """Store fields of many rows, row i under keys[i], and merge tags[i] into its tags.

    Atomic: all rows or, with an error, none. Without `tags` the rows' tags are returned
    as they are.
    """
    _refuse_data_parser(data_parser)
    if fields is None and tags is None:
        raise ValueError("Please provide at least one parameter of fields or tag.")
    keys = _checked_keys(keys)
    _check_fields(fields, "a TensorDict")
    if fields is not None and _rows_of(fields) != len(keys):
        raise ValueError(
            f"Length of `keys` ({len(keys)}) does not match `fields` batch size "
            f"({_rows_of(fields)})."
        )
    if tags is not None and len(tags) != len(keys):
        raise ValueError(
            f"Length of `keys` ({len(keys)}) does not match length of `tags` "
            f"({len(tags)})."
        )
    return _put_many(keys, partition_id, fields, tags)


async def async_kv_batch_put(
    keys: list[str],
    partition_id: str,
    fields: TensorDict | None = None,
    tags: Sequence[Tag] | None = None,
    data_parser: DataParser | None = None,
) -> KVBatchMeta:
    """kv_batch_put() for coroutines."""
    _refuse_data_parser(data_parser)
    if fields is None and tags is None:
        raise ValueError("Please provide at least one parameter of `fields` or `tags`.")
    keys = _checked_keys(keys)
    _check_fields(fields, "a TensorDict")
    if fields is not None and _rows_of(fields) != len(keys):
        raise ValueError(
            f"`keys` with length {len(keys)} does not match the `fields` TensorDict "
            f"with batch_size {_rows_of(fields)}"
        )
    if tags is not None and len(tags) != len(keys):
        raise ValueError(
            f"keys with length {len(keys)} does not match length of tags {len(tags)}"
        )
    return await run_in_pool(lambda: _put_many(keys, partition_id, fields, tags))


def kv_batch_get(
    keys: list[str] | str,
    partition_id: str,
    select_fields: list[str] | str | None = None,
) -> TensorDict:
    """Fields of rows, in the order of `keys`.

    Rows that do not exist are left out, and so are selected fields that are not
    produced for all the rows. No row at all, or no field common to them, is a
    ValueError. What is on other nodes is copied to this one: waits for room, up to
    `controller.timeout_s`, then a RuntimeError that names what takes it.
    """
    checked = _checked_keys(keys)
    select = _as_list(select_fields)
    return _maybe_create_tq_client().get_rows(checked, partition_id, select)


async def async_kv_batch_get(
    keys: list[str] | str,
    partition_id: str,
    select_fields: list[str] | str | None = None,
) -> TensorDict:
    """kv_batch_get() for coroutines."""
    return await run_in_pool(lambda: kv_batch_get(keys, partition_id, select_fields))


def kv_batch_get_by_meta(
    meta: KVBatchMeta, select_fields: list[str] | str | None = None
) -> TensorDict:
    """kv_batch_get() of the rows and fields that `meta` names."""
    if meta.partition_id is None:
        raise ValueError("Must provide partition_id in the input KVBatchMeta.")
    select = _as_list(select_fields)
    present = _as_list(meta.fields)
    if select is not None and not set(select) <= set(present or ()):
        raise ValueError(
            "Some fields assigned in select_fields not found in the metadata. "
            f"Assigned: {select}; Fields in KVBatchMeta: {present}"
        )
    return kv_batch_get(meta.keys, meta.partition_id, select or present)


async def async_kv_batch_get_by_meta(
    meta: KVBatchMeta, select_fields: list[str] | str | None = None
) -> TensorDict:
    """kv_batch_get_by_meta() for coroutines."""
    return await run_in_pool(lambda: kv_batch_get_by_meta(meta, select_fields))


def kv_list(partition_id: str | None = None) -> dict[str, dict[str, dict[str, Any]]]:
    """Partition -> key -> tags, keys in the order of their first put."""
    return _maybe_create_tq_client().kv_list(partition_id)


async def async_kv_list(
    partition_id: str | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """kv_list() for coroutines."""
    return await run_in_pool(lambda: kv_list(partition_id))


def kv_clear(keys: list[str] | str, partition_id: str) -> None:
    """Forget rows and their data. Rows that do not exist are no error."""
    _maybe_create_tq_client().clear_rows(_checked_keys(keys), partition_id)


async def async_kv_clear(keys: list[str] | str, partition_id: str) -> None:
    """kv_clear() for coroutines."""
    await run_in_pool(lambda: kv_clear(keys, partition_id))


# ---- Arguments -----------------------------------------------------------------------


def _put_one(
    key: str,
    partition_id: str,
    fields: TensorDict | dict[str, Any] | None,
    tag: Tag | None,
) -> KVBatchMeta:
    keys = _checked_keys([key])
    if isinstance(fields, dict):
        from transfer_queue._rows import single_row

        fields = single_row(fields)
    _check_fields(fields, "dict or TensorDict")
    if fields is not None and _rows_of(fields) != 1:
        raise ValueError(
            "add_fields batch size mismatch: kv_put stores one row, `fields` has "
            f"batch size {list(fields.batch_size)}"
        )
    tags = None if tag is None else [tag]
    return _maybe_create_tq_client().put_rows(keys, partition_id, fields, tags)


def _put_many(
    keys: list[str],
    partition_id: str,
    fields: TensorDict | None,
    tags: Sequence[Tag] | None,
) -> KVBatchMeta:
    if len(set(keys)) != len(keys):
        raise ValueError("Got duplicated keys.")
    return _maybe_create_tq_client().put_rows(keys, partition_id, fields, tags)


def _checked_keys(keys: Sequence[str] | str) -> list[str]:
    if isinstance(keys, str):
        return [keys]
    if not isinstance(keys, list | tuple):
        raise TypeError("Only string or list of strings are allowed as `keys`.")
    if not keys:
        raise ValueError("Received an empty list as keys.")
    if set(map(type, keys)) != {str} and not all(isinstance(k, str) for k in keys):
        raise TypeError("Not all elements in `keys` are strings.")
    return list(keys)


def _as_list(names: Sequence[str] | str | None) -> list[str] | None:
    if names is None:
        return None
    return [names] if isinstance(names, str) else list(names)


def _check_fields(fields: object, kinds: str) -> None:
    if fields is None:
        return
    from tensordict import TensorDictBase

    if not isinstance(fields, TensorDictBase):
        raise ValueError(f"`fields` can only be {kinds}")


def _rows_of(fields: TensorDict) -> int:
    return int(fields.batch_size[0]) if fields.batch_dims else 0


def _refuse_data_parser(data_parser: DataParser | None) -> None:
    if data_parser is not None:
        raise NotImplementedError(
            "data_parser is only supported by the SimpleStorage backend"
        )
