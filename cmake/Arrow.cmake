# SPDX-License-Identifier: Apache-2.0
# Arrow C++ (file systems, Parquet) from the pyarrow wheel.

file(GLOB arrow_root ${TEMPER_VENV}/lib/python3*/site-packages/pyarrow)
if(NOT arrow_root)
  message(FATAL_ERROR "no pyarrow in ${TEMPER_VENV}: run `make setup` first")
endif()
list(GET arrow_root 0 arrow_root)
file(GLOB arrow_library ${arrow_root}/libarrow.so.*)
file(GLOB s3_library ${arrow_root}/libarrow_s3.so.*)
file(GLOB parquet_library ${arrow_root}/libparquet.so.*)

add_library(temper_arrow INTERFACE)
add_library(temper::arrow ALIAS temper_arrow)
target_include_directories(temper_arrow SYSTEM INTERFACE ${arrow_root}/include)
target_link_libraries(temper_arrow INTERFACE ${arrow_library})
target_link_options(temper_arrow INTERFACE -Wl,-rpath,${arrow_root})

add_library(temper_arrow_s3 INTERFACE)
add_library(temper::arrow_s3 ALIAS temper_arrow_s3)
target_link_libraries(temper_arrow_s3 INTERFACE ${s3_library} temper_arrow)

add_library(temper_parquet INTERFACE)
add_library(temper::parquet ALIAS temper_parquet)
target_link_libraries(temper_parquet INTERFACE ${parquet_library} temper_arrow)
