<?php

// Whoever says a name is that user: see index.php.
return ['defaults' => ['guard' => 'web'], 'guards' => ['web' => ['driver' => 'by-header']], 'providers' => []];
