# SPDX-License-Identifier: Apache-2.0
# The C++ client library as a CMake package, for projects of others:
#   cmake --install build/release --component client --prefix PREFIX
#   find_package(temper-client) and link temper::client

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/temper-client)
# Headers of ours include one another as "client/…" and "common/…", generated ones as "temper/v1/…".
set(headers ${CMAKE_INSTALL_INCLUDEDIR}/temper)

set(targets temper_client temper_grpc temper_proto temper_rpc temper_google_rpc temper_common temper_grpcpp)
foreach(target ${targets})
  string(REPLACE temper_ "" name ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
endforeach()
install(TARGETS ${targets} EXPORT temper-client-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT client
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} ${headers})
install(EXPORT temper-client-targets NAMESPACE temper:: DESTINATION ${package} COMPONENT client)

file(GLOB client_headers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/client/*.h)
install(FILES ${client_headers} DESTINATION ${headers}/client COMPONENT client)
install(FILES common/digest.h DESTINATION ${headers}/common COMPONENT client)
install(FILES common/rpc/status.h DESTINATION ${headers}/common/rpc COMPONENT client)
install(DIRECTORY ${CMAKE_BINARY_DIR}/proto_gen/temper/v1/ DESTINATION ${headers}/v1 COMPONENT client
  FILES_MATCHING PATTERN "*.pb.h" PATTERN "worker_service*" EXCLUDE)

configure_package_config_file(cmake/temper-client-config.cmake.in ${CMAKE_BINARY_DIR}/temper-client-config.cmake
  INSTALL_DESTINATION ${package})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/temper-client-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/temper-client-config.cmake ${CMAKE_BINARY_DIR}/temper-client-config-version.cmake
  DESTINATION ${package} COMPONENT client)
