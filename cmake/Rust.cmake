# SPDX-License-Identifier: Apache-2.0
# A Rust static library with a C ABI, built by cargo from its lock file.

find_program(CARGO NAMES cargo cargo-web HINTS $ENV{HOME}/.cargo/bin REQUIRED)

# temper_rust_library(NAME dir): ${dir}/Cargo.toml describes a `staticlib` called NAME.
function(temper_rust_library name dir)
  # The same for every preset: sanitizers do not reach into it.
  set(target_dir ${CMAKE_SOURCE_DIR}/build/rust)
  set(archive ${target_dir}/release/lib${name}.a)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${dir}/src/*.rs)
  add_custom_command(OUTPUT ${archive}
    COMMAND ${CMAKE_COMMAND} -E env RUSTONIG_SYSTEM_LIBONIG=0 ${CARGO} build --release --locked --manifest-path ${dir}/Cargo.toml --target-dir ${target_dir}
    DEPENDS ${sources} ${dir}/Cargo.toml ${dir}/Cargo.lock
    USES_TERMINAL VERBATIM)
  add_custom_target(${name}_cargo DEPENDS ${archive})
  add_library(${name} INTERFACE)
  add_dependencies(${name} ${name}_cargo)
  target_link_libraries(${name} INTERFACE ${archive} Threads::Threads ${CMAKE_DL_LIBS} m)
endfunction()
