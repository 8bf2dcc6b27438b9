package proto

import (
	"fmt"
	"syscall"
)

// Status is an nfsstat4.
type Status uint32

// Status values (RFC 8881 section 15).
const (
	OK                Status = 0
	ErrPerm           Status = 1
	ErrNoEnt          Status = 2
	ErrIO             Status = 5
	ErrAccess         Status = 13
	ErrExist          Status = 17
	ErrXdev           Status = 18
	ErrNotDir         Status = 20
	ErrIsDir          Status = 21
	ErrInval          Status = 22
	ErrFBig           Status = 27
	ErrNoSpc          Status = 28
	ErrRofs           Status = 30
	ErrMlink          Status = 31
	ErrNameTooLong    Status = 63
	ErrNotEmpty       Status = 66
	ErrDquot          Status = 69
	ErrStale          Status = 70
	ErrBadHandle      Status = 10001
	ErrBadCookie      Status = 10003
	ErrNotSupp        Status = 10004
	ErrTooSmall       Status = 10005
	ErrServerFault    Status = 10006
	ErrBadType        Status = 10007
	ErrDelay          Status = 10008
	ErrSame           Status = 10009
	ErrDenied         Status = 10010
	ErrExpired        Status = 10011
	ErrLocked         Status = 10012
	ErrGrace          Status = 10013
	ErrShareDenied    Status = 10015
	ErrWrongSec       Status = 10016
	ErrClidInUse      Status = 10017
	ErrNoFileHandle   Status = 10020
	ErrMinorVers      Status = 10021
	ErrStaleClientid  Status = 10022
	ErrStaleStateid   Status = 10023
	ErrOldStateid     Status = 10024
	ErrBadStateid     Status = 10025
	ErrNotSame        Status = 10027
	ErrLockRange      Status = 10028
	ErrSymlink        Status = 10029
	ErrRestoreFH      Status = 10030
	ErrAttrNotSupp    Status = 10032
	ErrNoGrace        Status = 10033
	ErrReclaimBad     Status = 10034
	ErrBadXDR         Status = 10036
	ErrLocksHeld      Status = 10037
	ErrOpenMode       Status = 10038
	ErrBadOwner       Status = 10039
	ErrBadChar        Status = 10040
	ErrBadName        Status = 10041
	ErrLockNotSupp    Status = 10043
	ErrOpIllegal      Status = 10044
	ErrFileOpen       Status = 10046
	ErrBadSession     Status = 10052
	ErrBadSlot        Status = 10053
	ErrCompleteAlrdy  Status = 10054
	ErrConnNotBound   Status = 10055
	ErrSeqMisordered  Status = 10063
	ErrSequencePos    Status = 10064
	ErrReqTooBig      Status = 10065
	ErrRepTooBig      Status = 10066
	ErrRepTooBigCache Status = 10067
	ErrUncachedRep    Status = 10068
	ErrUnsafeCompound Status = 10069
	ErrTooManyOps     Status = 10070
	ErrOpNotInSession Status = 10071
	ErrClientidBusy   Status = 10074
	ErrSeqFalseRetry  Status = 10076
	ErrBadHighSlot    Status = 10077
	ErrDeadSession    Status = 10078
	ErrNotOnlyOp      Status = 10081
	ErrWrongCred      Status = 10082
	ErrWrongType      Status = 10083
)

func (s Status) Error() string { return fmt.Sprintf("NFSv4 status %d", uint32(s)) }

var fromErrno = map[syscall.Errno]Status{
	syscall.EPERM: ErrPerm, syscall.ENOENT: ErrNoEnt, syscall.EIO: ErrIO, syscall.EACCES: ErrAccess,
	syscall.EEXIST: ErrExist, syscall.EXDEV: ErrXdev, syscall.ENOTDIR: ErrNotDir, syscall.EISDIR: ErrIsDir,
	syscall.EINVAL: ErrInval, syscall.EFBIG: ErrFBig, syscall.ENOSPC: ErrNoSpc, syscall.EROFS: ErrRofs,
	syscall.EMLINK: ErrMlink, syscall.ENAMETOOLONG: ErrNameTooLong, syscall.ENOTEMPTY: ErrNotEmpty,
	syscall.EDQUOT: ErrDquot, syscall.ESTALE: ErrStale, syscall.ENOTSUP: ErrNotSupp,
}

var toErrno = func() map[Status]syscall.Errno {
	m := map[Status]syscall.Errno{
		ErrSymlink: syscall.ELOOP, ErrDenied: syscall.EAGAIN, ErrLocked: syscall.EAGAIN,
		ErrShareDenied: syscall.EACCES, ErrBadOwner: syscall.EINVAL, ErrBadChar: syscall.EINVAL,
		ErrBadName: syscall.EINVAL, ErrOpenMode: syscall.EBADF, ErrLockRange: syscall.EINVAL,
		ErrBadHandle: syscall.ESTALE, ErrWrongType: syscall.EINVAL, ErrFileOpen: syscall.EBUSY,
		ErrAttrNotSupp: syscall.ENOTSUP, ErrLocksHeld: syscall.EAGAIN,
	}
	for e, s := range fromErrno {
		m[s] = e
	}
	return m
}()

// FromErrno is the status for an errno; unknown ones become ErrServerFault.
func FromErrno(e syscall.Errno) Status {
	if e == 0 {
		return OK
	}
	if s, ok := fromErrno[e]; ok {
		return s
	}
	return ErrServerFault
}

// Errno is what an application sees of s; unknown ones become EIO.
func (s Status) Errno() syscall.Errno {
	if s == OK {
		return 0
	}
	if e, ok := toErrno[s]; ok {
		return e
	}
	return syscall.EIO
}
