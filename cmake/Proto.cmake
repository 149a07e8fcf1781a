# SPDX-License-Identifier: Apache-2.0
# Generated code of proto/: messages and gRPC stubs, below ${CMAKE_BINARY_DIR}/proto_gen.

find_package(Protobuf REQUIRED)
find_program(PROTOC protoc REQUIRED)
find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)

# Plainly, not by pkg-config: that takes 15 s to walk the hundreds of .pc files of Abseil.
find_library(GRPCPP_LIBRARY grpc++ REQUIRED)
find_library(GRPC_LIBRARY grpc REQUIRED)
find_library(GPR_LIBRARY gpr REQUIRED)
add_library(temper_grpcpp INTERFACE)
add_library(temper::grpcpp ALIAS temper_grpcpp)
target_link_libraries(temper_grpcpp INTERFACE
  "$<BUILD_INTERFACE:${GRPCPP_LIBRARY};${GRPC_LIBRARY};${GPR_LIBRARY}>" $<INSTALL_INTERFACE:gRPC::grpc++>
  protobuf::libprotobuf)

# temper_proto_library(MESSAGES SERVICES ROOT dir PROTOS files…): protos are relative to ROOT. MESSAGES is a library
# that needs protobuf alone; SERVICES adds the gRPC stubs.
function(temper_proto_library messages services)
  cmake_parse_arguments(arg "" "ROOT" "PROTOS" ${ARGN})
  set(out ${CMAKE_BINARY_DIR}/proto_gen)
  file(MAKE_DIRECTORY ${out})
  set(message_units)
  set(service_units)
  foreach(proto ${arg_PROTOS})
    string(REPLACE ".proto" "" stem ${proto})
    set(outputs ${out}/${stem}.pb.cc ${out}/${stem}.pb.h ${out}/${stem}.grpc.pb.cc ${out}/${stem}.grpc.pb.h)
    add_custom_command(OUTPUT ${outputs}
      COMMAND ${PROTOC} -I ${arg_ROOT} --cpp_out=${out} --grpc_out=${out}
              --plugin=protoc-gen-grpc=${GRPC_CPP_PLUGIN} ${arg_ROOT}/${proto}
      DEPENDS ${arg_ROOT}/${proto} VERBATIM)
    list(APPEND message_units ${out}/${stem}.pb.cc ${out}/${stem}.pb.h)
    list(APPEND service_units ${out}/${stem}.grpc.pb.cc ${out}/${stem}.grpc.pb.h)
  endforeach()
  add_library(${messages} STATIC ${message_units})
  target_include_directories(${messages} SYSTEM PUBLIC $<BUILD_INTERFACE:${out}>)
  target_link_libraries(${messages} PUBLIC protobuf::libprotobuf)
  add_library(${services} STATIC ${service_units})
  target_link_libraries(${services} PUBLIC ${messages} temper::grpcpp)
  add_dependencies(${services} ${messages})
  if(CMAKE_CXX_FLAGS MATCHES undefined)  # generated code: not ours to check, and minutes to compile
    target_compile_options(${messages} PRIVATE -fno-sanitize=undefined)
    target_compile_options(${services} PRIVATE -fno-sanitize=undefined)
  endif()
endfunction()
