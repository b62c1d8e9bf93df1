"""Open a graph under its engine: the one place that does, so that what is proven is what runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import onnxruntime

from ptycho_runtime.engine.cpu import CpuSession
from ptycho_runtime.engine.device_lock import DEVICE_LOCK
from ptycho_runtime.engine.devices import GPU_WHEEL, ORT_ERRORS, instead, provider_options, resolve
from ptycho_runtime.engine.gpu import GpuSession
from ptycho_runtime.engine.hardware import capped_threads
from ptycho_runtime.engine.onnx_session import OnnxSession, Profile, in_a_line
from ptycho_runtime.engine.openvino import OpenVinoSession
from ptycho_runtime.engine.options import DEFAULTS, PROVIDERS, RunOptions
from ptycho_runtime.engine.session import Session
from ptycho_runtime.errors import DamagedExportError
from ptycho_runtime.export.onnx_file import CheckedModel

Adapt = Callable[[RunOptions], RunOptions]


class _RefusedError(Exception):
    """A GPU does not take the graph; the message is the reason."""


def open_session(
    model: bytes, options: RunOptions = DEFAULTS, *, profile: bool = False, whole: bool = False
) -> OnnxSession:
    """Return a session under onnxruntime, on a device on which every node of the graph runs.

    Args:
        model: an ONNX file's content.
        options: how it is run; `precision` plays no part, see `variants`.
        profile: record each node's runs, for `facts` and `node_runs`; on the CPU each feed then is one run.
        whole: make each feed one run as it is, for graphs that are looked into; see `OnnxSession`.

    Raises:
        DeviceUnavailableError: a device that was asked for by name cannot be used, or would hand nodes to the CPU; a CUDA graph
            that was asked for cannot be had.
        DamagedExportError, UnsafeGraphError: the file does not pass the gate (`CheckedModel`), or the CPU, which every host has,
            cannot take the graph.
        ValueError: the options ask for another engine.
    """
    if options.engine == "openvino":
        raise ValueError("the options ask for openvino; open_engine opens it")
    # What was looked through is what is opened.
    model = CheckedModel(model)
    found = _gpu_or_why_not(model, options, profile=profile, whole=whole)
    if not isinstance(found, str):
        return found
    return _on_cpu(model, _fitted(options, "cpu", None), found, profile=profile, whole=whole)


def open_engine(model: bytes, options: RunOptions = DEFAULTS, adapt: Adapt | None = None) -> Session:
    """Return a session under the engine that the options name; onnxruntime where they name none.

    Args:
        model: an ONNX file's content.
        options: how it is run; `precision` plays no part, see `variants`.
        adapt: called with the options for the device that is opened next; returns them with the engine, batch and threads that
            suit it.

    Nothing here decides that the numbers of another engine than onnxruntime are good enough; see `chosen`.

    Raises:
        DeviceUnavailableError: a device or an engine that was asked for by name cannot be used.
        DamagedExportError, UnsafeGraphError: see `open_session`.
    """
    model = CheckedModel(model)
    found = _gpu_or_why_not(model, options, adapt)
    if not isinstance(found, str):
        return found
    fitted = _fitted(options, "cpu", adapt)
    if fitted.engine != "openvino":
        return _on_cpu(model, fitted, found, profile=False, whole=False)
    session = OpenVinoSession(model, fitted)
    session.note = "; ".join(filter(None, (found, session.note)))
    return session


def _gpu_or_why_not(
    model: bytes, options: RunOptions, adapt: Adapt | None = None, *, profile: bool = False, whole: bool = False
) -> OnnxSession | str:
    """Return a session on the GPU that options mean, or what is said where the CPU runs in its place; empty where it was asked for."""
    resolved = resolve(options)
    if resolved.device == "cpu":
        return resolved.note
    try:
        return _on_gpu(model, _fitted(options, resolved.device, adapt), profile=profile, whole=whole)
    except _RefusedError as error:
        # A CUDA graph that was asked for never turns into a run on the CPU.
        return instead(options, str(error))


def _fitted(options: RunOptions, device: str, adapt: Adapt | None) -> RunOptions:
    options = replace(options, device=device)
    return options if adapt is None else adapt(options)


def _on_cpu(model: bytes, options: RunOptions, note: str, *, profile: bool, whole: bool) -> OnnxSession:
    threads, capped = capped_threads(options.threads)
    record = Profile() if profile else None

    def opened(threads: int) -> onnxruntime.InferenceSession:
        try:
            return _inference_session(model, options, threads, record)
        except ORT_ERRORS as error:
            raise DamagedExportError(
                f"onnxruntime refuses the graph: {in_a_line(error)}; export the bundle again"
            ) from error

    note = "; ".join(filter(None, (note, capped)))
    options = replace(options, threads=threads, engine="onnxruntime")
    try:
        if whole or profile:
            return OnnxSession(opened(threads), options, note=note, profile=record)
        return CpuSession(opened, options, note=note)
    except BaseException:
        if record is not None:
            record.close()
        raise


def _on_gpu(model: bytes, options: RunOptions, *, profile: bool, whole: bool) -> OnnxSession:
    threads, capped = capped_threads(options.threads)
    options = replace(options, threads=threads, engine="onnxruntime")
    # Finds the CUDA libraries of pip packages without importing torch.
    onnxruntime.preload_dlls()
    record = Profile() if profile else None
    cause: Exception
    try:
        session = _inference_session(model, options, threads, record)
        kind = OnnxSession if whole else GpuSession
        return kind(session, options, note=capped, profile=record)
    except OSError as error:
        reason, cause = str(error), error
    except ORT_ERRORS as error:
        reason, cause = f"onnxruntime refused the session: {in_a_line(error)}", error
    if record is not None:
        record.close()
    raise _RefusedError(reason) from cause


def _inference_session(
    model: bytes, options: RunOptions, threads: int, profile: Profile | None
) -> onnxruntime.InferenceSession:
    told = onnxruntime.SessionOptions()
    told.log_severity_level = 3
    told.intra_op_num_threads = threads
    # Threads spin within a run, where the next operator comes soon, but not after it: reconstruction alternates two sessions
    # and stitches beside them, and the threads of the one that waits would take the cores from the one that runs.
    told.add_session_config_entry("session.force_spinning_stop", "1")
    if options.device != "cpu":
        # A node without a kernel is an error instead of a silent detour over the CPU.
        told.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if profile is not None:
        told.enable_profiling = True
        told.profile_file_prefix = profile.prefix
    provider = PROVIDERS[options.device]
    providers = [(provider, provider_options(model, options))]
    with nullcontext() if options.device == "cpu" else DEVICE_LOCK.together():
        session = onnxruntime.InferenceSession(model, told, providers=providers)
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"the session came up on {session.get_providers()[0]}; {GPU_WHEEL}")
    return session
