"""What every process of a host may know of the environment around it."""

from __future__ import annotations

from collections.abc import Mapping

from services.chassis.settings import CONFIG_VARIABLE

NAMES = frozenset(
    (
        "HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LD_PRELOAD", "LOGNAME", "PATH", "PYTHONPATH",
        "PYTHONWARNINGS", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONHASHSEED", "PYTHONUTF8",
        "SHELL", "TEMP", "TERM", "TMP", "TMPDIR", "TZ", "TZDIR", "USER", "NO_COLOR", "FORCE_COLOR",
        CONFIG_VARIABLE,
    )
)  # fmt: skip
"""How a program finds its files and its user's language."""

PREFIXES = (
    "LC_", "XDG_", "DYLD_", "MALLOC_", "SSL_CERT_",
    "CUDA_", "NVIDIA_", "HIP_", "HSA_", "ROCR_", "ROCM_", "GPU_", "VK_", "ONEAPI_", "SYCL_", "ZE_",
    "GGML_", "LLAMA_", "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "MKL_", "BLIS_", "VECLIB_",
    "OTEL_",
)  # fmt: skip
"""All of these: locale, folders, certificates, graphics processors, threads of libraries, telemetry."""


def general_of(surroundings: Mapping[str, str]) -> dict[str, str]:
    """The variables of `surroundings` that any program of ours may have."""
    return {name: value for name, value in surroundings.items() if name in NAMES or name.startswith(PREFIXES)}
