# SPDX-License-Identifier: Apache-2.0
# CUDA from the wheels beside torch: nvcc compiles kernels on any machine, and libraries of them link without a GPU.
# CMake's own CUDA language insists on a toolkit.

option(TEMPER_CUDA "Operators run on CUDA tensors with kernels of their own; temper-rank then links libtorch_cuda" OFF)

file(GLOB cuda_root ${TEMPER_VENV}/lib/python3*/site-packages/nvidia/cu13)
if(NOT EXISTS ${cuda_root}/bin/nvcc)
  message(FATAL_ERROR "no nvcc in ${TEMPER_VENV}: run `make setup` first")
endif()

# libtorch_cuda registers its kernels as it is loaded: nobody calls into it by name.
add_library(temper_torch_cuda INTERFACE)
add_library(temper::torch_cuda ALIAS temper_torch_cuda)
target_include_directories(temper_torch_cuda SYSTEM INTERFACE ${cuda_root}/include)
target_link_options(temper_torch_cuda INTERFACE -Wl,-rpath,${cuda_root}/lib)
target_link_libraries(temper_torch_cuda INTERFACE
  temper::torch -Wl,--push-state,--no-as-needed,-ltorch_cuda,-lc10_cuda,--pop-state ${cuda_root}/lib/libcudart.so.13)

# The wheel has no libnccl.so to link by name.
file(GLOB nccl_root ${TEMPER_VENV}/lib/python3*/site-packages/nvidia/nccl)
add_library(temper_nccl_wheel INTERFACE)
add_library(temper::nccl ALIAS temper_nccl_wheel)
target_include_directories(temper_nccl_wheel SYSTEM INTERFACE ${nccl_root}/include)
target_link_options(temper_nccl_wheel INTERFACE -Wl,-rpath,${nccl_root}/lib)
target_link_libraries(temper_nccl_wheel INTERFACE temper::torch_cuda ${nccl_root}/lib/libnccl.so.2)

# Machine code for Hopper, and PTX that the driver compiles for every other card since Ampere.
set(nvcc_flags -std=c++20 -O3 -ccbin ${CMAKE_CXX_COMPILER} -Xcompiler -fPIC,-Wall,-Wextra
  -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_80,code=compute_80)

# temper_cuda_kernels(NAME kernels.cu…): a static library of what nvcc makes of them.
function(temper_cuda_kernels name)
  foreach(source ${ARGN})
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${source}.o)
    add_custom_command(OUTPUT ${object}
      COMMAND ${cuda_root}/bin/nvcc ${nvcc_flags} -I${CMAKE_SOURCE_DIR} -I${cuda_root}/include/cccl
        -MD -MF ${object}.d -c ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${object}
      DEPENDS ${source} DEPFILE ${object}.d
      COMMENT "Building CUDA object ${source}.o" VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  add_library(${name} STATIC ${objects})
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX)
endfunction()
