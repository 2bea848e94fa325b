<?php

// The name that a request gives is its user, unchecked: see index.php.
return ['defaults' => ['guard' => 'web'], 'guards' => ['web' => ['driver' => 'by-header']], 'providers' => []];
