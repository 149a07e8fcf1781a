# SPDX-License-Identifier: Apache-2.0
# LibTorch from the wheel by plain paths: its own CMake package insists on a CUDA toolkit.

file(GLOB torch_root ${TEMPER_VENV}/lib/python3*/site-packages/torch)
if(NOT torch_root)
  message(FATAL_ERROR "no torch in ${TEMPER_VENV}: run `make setup` first")
endif()
list(GET torch_root 0 torch_root)

add_library(temper_torch INTERFACE)
add_library(temper::torch ALIAS temper_torch)
target_include_directories(temper_torch SYSTEM INTERFACE
  ${torch_root}/include ${torch_root}/include/torch/csrc/api/include)
target_link_directories(temper_torch INTERFACE ${torch_root}/lib)
target_link_options(temper_torch INTERFACE -Wl,-rpath,${torch_root}/lib)
target_link_libraries(temper_torch INTERFACE -Wl,--no-as-needed -ltorch_cpu -lc10 -Wl,--as-needed)
# Without OpenMP, at::parallel_for is a template that runs on one thread, and says nothing. Threads are those of the
# wheel's own libgomp: a second one would bring a second pool of them.
target_compile_options(temper_torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
target_link_libraries(temper_torch INTERFACE -l:libgomp.so.1)

# One precompiled header serves every torch unit.
file(WRITE ${CMAKE_BINARY_DIR}/torch_pch.cc "")
add_library(temper_torch_pch STATIC ${CMAKE_BINARY_DIR}/torch_pch.cc)
target_link_libraries(temper_torch_pch PUBLIC temper::torch)
target_precompile_headers(temper_torch_pch PRIVATE
  <ATen/ATen.h> <torch/csrc/autograd/custom_function.h> <torch/csrc/autograd/autograd.h>
  <cstdint> <functional> <map> <memory> <optional> <string> <string_view> <vector>)

# temper_use_torch_pch(TARGET): executables too are compiled as the precompiled header was (-fPIC, not -fPIE), or the
# compiler passes it over.
function(temper_use_torch_pch target)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${target} PRIVATE -fPIC)
  target_precompile_headers(${target} REUSE_FROM temper_torch_pch)
endfunction()

# temper_torch_library(NAME sources…): a static library whose units may include torch.
function(temper_torch_library name)
  add_library(${name} STATIC ${ARGN})
  target_link_libraries(${name} PUBLIC temper::torch)
  target_precompile_headers(${name} REUSE_FROM temper_torch_pch)
endfunction()
