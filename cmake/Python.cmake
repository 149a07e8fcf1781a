# SPDX-License-Identifier: Apache-2.0
# The interpreter that TEMPER_VENV runs on, for embedding it: temper::python, and TEMPER_PYTHON_FOUND. Its own library
# and headers, whatever other Python the system has. Without them everything else still builds.

set(TEMPER_PYTHON_EXECUTABLE ${TEMPER_VENV}/bin/python)
execute_process(
  COMMAND ${TEMPER_PYTHON_EXECUTABLE} -c
    "import sysconfig; print(*(sysconfig.get_config_var(k) or '' for k in ('INCLUDEPY', 'LIBDIR', 'MULTIARCH', 'LDLIBRARY')), sep=';')"
  OUTPUT_VARIABLE python_config OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
list(GET python_config 0 python_include)
list(GET python_config 1 python_library_dir)
list(GET python_config 2 python_multiarch)
list(GET python_config 3 python_library_name)

find_library(TEMPER_PYTHON_LIBRARY ${python_library_name}
  PATHS ${python_library_dir} ${python_library_dir}/${python_multiarch} NO_DEFAULT_PATH)
find_library(TEMPER_TORCH_PYTHON_LIBRARY torch_python PATHS ${torch_root}/lib NO_DEFAULT_PATH)
set(TEMPER_PYTHON_FOUND OFF)
if(EXISTS ${python_include}/Python.h AND TEMPER_PYTHON_LIBRARY AND TEMPER_TORCH_PYTHON_LIBRARY)
  set(TEMPER_PYTHON_FOUND ON)
  cmake_path(GET TEMPER_PYTHON_LIBRARY PARENT_PATH python_library_dir)
  add_library(temper_embedded_python INTERFACE)
  add_library(temper::python ALIAS temper_embedded_python)
  target_include_directories(temper_embedded_python SYSTEM INTERFACE ${python_include})
  target_link_libraries(temper_embedded_python INTERFACE
    temper::torch ${TEMPER_TORCH_PYTHON_LIBRARY} ${TEMPER_PYTHON_LIBRARY})
  target_link_options(temper_embedded_python INTERFACE -Wl,-rpath,${python_library_dir})
else()
  message(WARNING "no headers or no shared library of the Python of ${TEMPER_VENV} (Debian: python3-dev): "
    "`temper-rank verify` and models without a native family will not work")
endif()
