//go:build !nextlevel

package api

func (s *Server) nextRoutes() {}
