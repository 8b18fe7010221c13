# What every target of the project shares: warnings, definitions, and two helpers that
# keep the CMakeLists.txt of a layer down to a list of its files.

add_library(datasystem_options INTERFACE)
target_compile_definitions(datasystem_options INTERFACE _GNU_SOURCE)
target_include_directories(datasystem_options INTERFACE
  ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
target_compile_options(datasystem_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes
  -Wmissing-prototypes -Wvla -Wno-gnu-zero-variadic-macro-arguments
  -fvisibility=hidden)
if(DATASYSTEM_WERROR)
  target_compile_options(datasystem_options INTERFACE -Werror)
endif()
if(DATASYSTEM_CHECKS)
  target_compile_definitions(datasystem_options INTERFACE DATASYSTEM_CHECKS=1)
endif()
if(DATASYSTEM_SANITIZE)
  target_compile_options(datasystem_options INTERFACE
    -fsanitize=${DATASYSTEM_SANITIZE} -fno-sanitize-recover=undefined
    -fno-omit-frame-pointer -g)
  target_link_options(datasystem_options INTERFACE -fsanitize=${DATASYSTEM_SANITIZE})
endif()
find_package(Threads REQUIRED)

# The daemons carry their libraries with them where Debian has the archive, so a wheel
# needs nothing from the host but glibc.
find_library(LIBUV NAMES libuv_a.a libuv.a uv REQUIRED)
find_library(LIBXXHASH NAMES libxxhash.a xxhash REQUIRED)
find_library(LIBSODIUM NAMES libsodium.a sodium REQUIRED)
find_library(LIBJANSSON NAMES libjansson.a jansson REQUIRED)
find_path(LIBUV_INCLUDE uv.h REQUIRED)
find_path(LIBXXHASH_INCLUDE xxhash.h REQUIRED)
find_path(LIBSODIUM_INCLUDE sodium.h REQUIRED)
find_path(LIBJANSSON_INCLUDE jansson.h REQUIRED)
find_path(LIBCURL_INCLUDE curl/curl.h REQUIRED) # Loaded when it is needed: src/net/http.c.

# datasystem_layer(name files...): one layer as a static library. Add what it may use
# with target_link_libraries(name PUBLIC ...), always downwards.
function(datasystem_layer name)
  add_library(${name} STATIC ${ARGN})
  target_link_libraries(${name} PUBLIC datasystem_options)
endfunction()

# datasystem_command(program out_path): a file that runs the program on this machine:
# itself or, when it was built for another processor, a script that calls the emulator.
function(datasystem_command program out_path)
  set(path $<TARGET_FILE:${program}>)
  if(CMAKE_CROSSCOMPILING_EMULATOR)
    list(JOIN CMAKE_CROSSCOMPILING_EMULATOR " " emulator)
    set(path ${CMAKE_CURRENT_BINARY_DIR}/${program}_emulated)
    file(GENERATE OUTPUT ${path}
      CONTENT "#!/bin/sh\nexec ${emulator} '$<TARGET_FILE:${program}>' \"$@\"\n"
      FILE_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
  endif()
  set(${out_path} ${path} PARENT_SCOPE)
endfunction()

# datasystem_test(file layer...): x_test.c becomes the ctest "x_test".
function(datasystem_test file)
  if(DATASYSTEM_TESTS)
    get_filename_component(name ${file} NAME_WE)
    add_executable(${name} ${file})
    target_link_libraries(${name} PRIVATE ${ARGN} test_support)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES TIMEOUT 300)
  endif()
endfunction()
