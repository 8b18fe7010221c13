# What an installation holds besides the C library and its header, which
# src/client/CMakeLists.txt installs. Included last, when all targets are known.
#
#   cmake --install   the programs too, under a prefix
#   wheel             all of it inside the package yr.datasystem (component "python")
#   editable install  nothing: the targets are built into python/yr/datasystem, so that
#                     the source tree is the package, and `ninja` alone updates it

set(PROGRAMS datasystem_worker transfer_queue_controller)

# A wheel holds no symbolic links: the library lies in it under its soname, which is what
# datasystem.pc asks the linker for.
function(datasystem_install_python)
  set(package yr/datasystem)
  install(TARGETS ${PROGRAMS} RUNTIME DESTINATION ${package}/bin COMPONENT python)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/datasystem
    DESTINATION ${package}/include COMPONENT python)
  set(DATASYSTEM_PC_PREFIX ../..)
  set(CMAKE_INSTALL_LIBDIR .)
  set(CMAKE_INSTALL_INCLUDEDIR include)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/datasystem.pc.in package.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/package.pc RENAME datasystem.pc
    DESTINATION ${package}/lib/pkgconfig COMPONENT python)
endfunction()

function(datasystem_build_in_tree)
  set(package ${PROJECT_SOURCE_DIR}/python/yr/datasystem)
  set_target_properties(${PROGRAMS} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${package}/bin)
  set_target_properties(_core datasystem_client PROPERTIES
    LIBRARY_OUTPUT_DIRECTORY ${package}
    BUILD_WITH_INSTALL_RPATH ON)
endfunction()

if(SKBUILD_STATE STREQUAL "editable")
  datasystem_build_in_tree()
elseif(SKBUILD)
  datasystem_install_python()
else()
  install(TARGETS ${PROGRAMS} RUNTIME COMPONENT programs)
endif()
