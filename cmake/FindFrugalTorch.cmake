# Finds the libtorch of the `torch` wheel: FRUGAL_TORCH (folder that holds lib/ and include/), the active
# Python environment, or .venv. Only libtorch_cpu and libc10 are linked, so a CUDA wheel on a machine without
# the CUDA toolkit builds too. Its include folder holds an old fmt and protobuf: hence -idirafter.
set(_candidates ${FRUGAL_TORCH} $ENV{FRUGAL_TORCH})
foreach(_python $ENV{VIRTUAL_ENV}/bin/python ${CMAKE_SOURCE_DIR}/.venv/bin/python python3)
  execute_process(COMMAND ${_python} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE _dir OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE _rc)
  if(_rc EQUAL 0)
    list(APPEND _candidates ${_dir})
  endif()
endforeach()
foreach(_dir ${_candidates})
  if(EXISTS ${_dir}/lib/libtorch_cpu.so)
    set(FrugalTorch_DIR_FOUND ${_dir})
    break()
  endif()
endforeach()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(FrugalTorch REQUIRED_VARS FrugalTorch_DIR_FOUND
  REASON_FAILURE_MESSAGE "no torch wheel found: run scripts/setup, or set FRUGAL_TORCH to the torch package folder")
if(FrugalTorch_FOUND AND NOT TARGET FrugalTorch::torch)
  message(STATUS "torch: ${FrugalTorch_DIR_FOUND}")
  add_library(FrugalTorch::torch INTERFACE IMPORTED)
  set_property(TARGET FrugalTorch::torch PROPERTY INTERFACE_COMPILE_OPTIONS
    "SHELL:-idirafter ${FrugalTorch_DIR_FOUND}/include" "SHELL:-idirafter ${FrugalTorch_DIR_FOUND}/include/torch/csrc/api/include")
  set_property(TARGET FrugalTorch::torch PROPERTY INTERFACE_LINK_LIBRARIES
    ${FrugalTorch_DIR_FOUND}/lib/libtorch_cpu.so ${FrugalTorch_DIR_FOUND}/lib/libc10.so)
  set_property(TARGET FrugalTorch::torch PROPERTY INTERFACE_LINK_OPTIONS "-Wl,-rpath,${FrugalTorch_DIR_FOUND}/lib" "-Wl,--no-as-needed")
  # libgomp: the wheel's own copy must be the only OpenMP runtime in the process.
  set_property(TARGET FrugalTorch::torch APPEND PROPERTY INTERFACE_LINK_OPTIONS "-Wl,-rpath-link,${FrugalTorch_DIR_FOUND}/lib")
endif()
